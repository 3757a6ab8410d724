"""Training, calibration and evaluation; the only room that may use scikit-learn, matplotlib or torch."""
