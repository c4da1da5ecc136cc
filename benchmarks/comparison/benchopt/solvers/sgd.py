from benchopt import BaseSolver
from question import CELLS, train


class Solver(BaseSolver):
    """The lecture's training with a regularizer at a strength."""

    name = "SGD"
    parameters = {"reg, lam": CELLS}  # noqa: RUF012 (as benchopt asks for it)
    sampling_strategy = "run_once"

    def set_objective(self, images, seed):
        self.images, self.seed = images, seed

    def run(self, _):
        self.model = train(self.reg, self.lam, self.seed, self.images)

    def get_result(self):
        return {"model": self.model}
