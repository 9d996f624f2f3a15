"""Light-field microscopy: from camera movies to volumes and calcium traces."""
