"""The threads that compute: one runs episodes, others index.

``engine`` steps all running episodes together and embeds chunks between the steps. ``workers`` has the threads that
index documents and keep the approximate search up to date. ``checkpoints`` holds the checkpoint that is served and
changes it while requests go on, and ``memory`` gives freed memory back to the system.
"""
