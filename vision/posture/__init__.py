"""A person's posture and alerts from keypoints, by angles and body proportions: joints → body → rules → reasons."""

from vision.posture.assessment import Alert, AlertDetail, Assessment, assess
from vision.posture.joints import KEYPOINT_NAMES
from vision.posture.rules import Posture

__all__ = ["KEYPOINT_NAMES", "Alert", "AlertDetail", "Assessment", "Posture", "assess"]
