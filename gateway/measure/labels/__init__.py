"""Labels: ground truth joined by trace id, accuracy, and labels that are late."""
