"""X-ray separation: the two designs that are mixed in the radiograph of a painting."""
