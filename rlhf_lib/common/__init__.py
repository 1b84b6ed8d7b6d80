"""What every stage needs: params and their checks, paths, files, rows, the environment, the hub."""
