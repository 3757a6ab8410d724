"""Re-scoring logs in batch: readers, the resumable run, its parts and its report."""
