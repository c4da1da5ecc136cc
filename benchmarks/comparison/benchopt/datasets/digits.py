from benchopt import BaseDataset
from question import load


class Dataset(BaseDataset):
    name = "digits"

    def get_data(self):
        images, test = load()
        return {"images": images, "test": test}
