"""Gram matrices, HSIC and CKA of arrays, without any store."""
