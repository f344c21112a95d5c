"""From torch to a bundle; torch lives here and in the zoo's training scripts, nowhere else."""
