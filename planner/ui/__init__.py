"""The browser's pages. They place what the product layer gives and compute nothing themselves."""
