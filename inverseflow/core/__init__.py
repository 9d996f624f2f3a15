"""What all modalities share: arrays, stores, provenance, compute. Knows no modality."""
