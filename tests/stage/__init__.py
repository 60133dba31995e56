"""TrainSeal on a cluster and people who sign: what demo and end-to-end tests are made of."""
