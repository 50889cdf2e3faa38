"""What only the import step needs: find weights, check them, convert them, and prove the result."""
