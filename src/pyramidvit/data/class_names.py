"""Classes of the public data sets of segmentation, which their folders do not name themselves."""

from ..structures import Classes

ADE20K = """wall building sky floor tree ceiling road bed windowpane grass cabinet sidewalk person
earth door table mountain plant curtain chair car water painting sofa shelf house sea mirror rug
field armchair seat fence desk rock wardrobe lamp bathtub railing cushion base box column signboard
chest_of_drawers counter sand sink skyscraper fireplace refrigerator grandstand path stairs runway
case pool_table pillow screen_door stairway river bridge bookcase blind coffee_table toilet flower
book hill bench countertop stove palm kitchen_island computer swivel_chair boat bar arcade_machine
hovel bus towel light truck tower chandelier awning streetlight booth television_receiver airplane
dirt_track apparel pole land bannister escalator ottoman bottle buffet poster stage van ship
fountain conveyer_belt canopy washer plaything swimming_pool stool barrel basket waterfall tent bag
minibike cradle oven ball food step tank trade_name microwave pot animal bicycle lake dishwasher
screen blanket sculpture hood sconce vase traffic_light tray ashcan fan pier crt_screen plate
monitor bulletin_board shower radiator glass clock flag"""

CITYSCAPES = {  # name: (id in *_labelIds.png, colour), in the order of the train ids
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}

VOC = """background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse
motorbike person pottedplant sheep sofa train tvmonitor"""

VOC_VOID = (224, 224, 192)  # the colour of value 255 in its palette


def ade20k_classes() -> Classes:
    """The 150 classes of the scene parsing challenge, ids from 1 as its objectInfo150.txt has
    them."""
    names = tuple(name.replace("_", " ") for name in ADE20K.split())
    return Classes(names=names, ids=tuple(range(1, len(names) + 1)))


def cityscapes_classes() -> Classes:
    """The 19 classes that are evaluated; the ids are those of the label maps that are shipped."""
    return Classes(
        names=tuple(CITYSCAPES),
        ids=tuple(number for number, _ in CITYSCAPES.values()),
        colours=tuple(colour for _, colour in CITYSCAPES.values()),
    )


def voc_classes() -> Classes:
    """Background and the 20 classes, with the colours of the maps' palette."""
    names = tuple(VOC.split())
    colours = tuple(voc_colour(number) for number in range(len(names)))
    return Classes(names=names, ids=tuple(range(len(names))), colours=colours)


def voc_colour(number: int) -> tuple[int, int, int]:
    """The colour of a value in the palette of Pascal VOC: its bits, dealt out to the channels,
    the lowest to the highest bits (VOClabelcolormap.m of the development kit)."""
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= (number >> 3 * bit + channel & 1) << 7 - bit
    return channels[0], channels[1], channels[2]
