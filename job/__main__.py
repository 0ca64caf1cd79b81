"""`python -m job` and the command `sft-job`."""

from job.cli import main

if __name__ == "__main__":
    main()
