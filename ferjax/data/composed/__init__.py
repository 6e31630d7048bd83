"""The source "composed_scenes": labelled face crops pasted into photographs without faces."""
