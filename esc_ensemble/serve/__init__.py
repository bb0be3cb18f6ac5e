"""A small HTTP service over an exported model: audio in, JSON out; no torch, and no file is ever written.

    esc-ens serve exports/blend.onnx
    curl --data-binary @dog.wav http://127.0.0.1:8000/predict

`pip install "esc_ensemble[serve]"` brings what is needed: the `infer` extra, fastapi and uvicorn.
"""
