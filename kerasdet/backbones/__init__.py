"""Networks under the detectors: functions from a tensor to named feature maps."""
