"""The Headway operator: TrainingJobs, Sweeps and ModelVersions turned into pods and promotions."""
