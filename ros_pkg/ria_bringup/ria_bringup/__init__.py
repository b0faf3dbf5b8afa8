"""What the launch files of the overlay do, without the launch library: importable and testable anywhere."""
