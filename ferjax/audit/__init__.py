"""Which labels of a data set are probably wrong, by predictions that have not seen them."""
