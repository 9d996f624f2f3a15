"""Macro X-ray fluorescence: from a cube of counts to elemental maps."""
