"""Job: a model over a data source. The same as `equipoise predict`.

python jobs/predict.py runs/demo tickets.csv predictions
"""

from equipoise.cli.main import run_as_job

if __name__ == "__main__":
    run_as_job("predict")
