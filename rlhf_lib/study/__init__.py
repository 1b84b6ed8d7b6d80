"""`make study`: several methods, each tuned as much as the others, with seeds, and who is better than whom."""
