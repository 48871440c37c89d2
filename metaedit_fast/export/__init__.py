"""Editors as files and the engine that runs them: ONNX graphs, ONNX Runtime sessions. No torch is needed."""
