"""Why does the network answer that? Filters, feature maps, receptive fields, costs, Grad-CAM, occlusion."""

from cnnlab.explain.activations import feature_maps, filters
from cnnlab.explain.attribution import grad_cam, occlusion
from cnnlab.explain.layers import receptive_fields, summary

__all__ = ["feature_maps", "filters", "grad_cam", "occlusion", "receptive_fields", "summary"]
