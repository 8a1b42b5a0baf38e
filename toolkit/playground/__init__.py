"""The embedded world: rendered scenes, sentences about scenes, small towers. Everything a first run needs, no download."""
