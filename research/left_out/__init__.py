"""The benchmark of left-out classes: caches of what models say of images, and the table of scorers made from them."""
