"""From a camera to sealed clips."""
