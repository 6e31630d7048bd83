"""The selective scan as one kernel for each platform, written in Pallas."""
