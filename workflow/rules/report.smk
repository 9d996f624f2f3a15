# The summary page of all modalities.
