from benchopt import BaseObjective
from question import accuracy, hold_out


class Objective(BaseObjective):
    """Accuracy of the lecture's network on images held out and on those of the test."""

    name = "Accuracy"
    min_benchopt_version = "1.9"
    sampling_strategy = "run_once"

    def set_data(self, images, test):
        self.images, self.test = images, test

    def get_objective(self):
        # the same for all solvers of a repetition
        self.seed = self.get_seed(use_repetition=True)
        fit, self.held = hold_out(self.images, self.seed)
        return {"images": fit, "seed": self.seed}

    def evaluate_result(self, model):
        return {"val_accuracy": accuracy(model, self.held), "value": accuracy(model, self.test)}
