"""What models cost: measured side by side in one run, or planned without running them."""
