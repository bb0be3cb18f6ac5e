"""Blending: from the logits files of several runs to weights and scores that hold on new clips."""
