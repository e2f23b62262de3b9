"""Ray clusters that run elsewhere: Kubernetes with KubeRay, and the Ray Jobs API."""
