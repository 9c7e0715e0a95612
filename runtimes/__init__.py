"""The device side: one API over ONNX Runtime, OpenVINO and LiteRT."""
