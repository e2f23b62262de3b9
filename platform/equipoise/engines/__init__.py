"""What runs a model: torch, onnxruntime, openvino."""

from equipoise.engines.engine import ENGINES, Engine, is_installed, open_engine
from equipoise.engines.predictor import Predictor

__all__ = ["ENGINES", "Engine", "Predictor", "is_installed", "open_engine"]
