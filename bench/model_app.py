"""What a model host of the benchmark serves: an engine emulator, at the URL that its environment tells."""

import os

from bench import jobs
from callboard import model_at

writer = model_at("writer", url=os.environ[jobs.ENGINE], concurrency=600)
