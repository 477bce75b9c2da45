"""All that measures the suite itself: estimators against truths, gaps, speed."""
