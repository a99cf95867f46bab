"""The page in a real browser, on a real server with the demo model. A package, so that one browser serves them all."""
