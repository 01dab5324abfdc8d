"""Raw data to arrays, with NumPy alone: what training and a running service share."""
