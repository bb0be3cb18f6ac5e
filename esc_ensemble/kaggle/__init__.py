"""Kaggle: the folder that is uploaded, the official client, and training inside a kernel within a time budget."""
