"""The Ray Serve application that runs a bundle: gateway, replica, metering, endpoint, load client."""
