"""Job: a model's figures on labelled data. The same as `equipoise evaluate`.

python jobs/evaluate.py runs/demo --data sample://reuters-r8/test --out evaluation
"""

from equipoise.cli.main import run_as_job

if __name__ == "__main__":
    run_as_job("evaluate")
