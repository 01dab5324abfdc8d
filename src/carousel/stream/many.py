class Streams:
    pass
