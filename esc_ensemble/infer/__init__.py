"""Audio files to named predictions with onnxruntime alone: no torch, nothing but the `.onnx` file.

    from esc_ensemble.infer import Classifier

    classifier = Classifier("exports/blend.onnx")
    for prediction in classifier.predict(["dog.wav"]):
        print(prediction.path, prediction.top(3))

`pip install "esc_ensemble[infer]"` brings what is needed: numpy, soundfile, soxr and onnxruntime.
"""

from __future__ import annotations

from esc_ensemble.infer.classifier import Classifier, Prediction, Window, find_audio
from esc_ensemble.infer.model_file import METADATA_KEY, METADATA_SCHEMA

__all__ = ["METADATA_KEY", "METADATA_SCHEMA", "Classifier", "Prediction", "Window", "find_audio"]
