"""A web page that judges images in the browser."""
