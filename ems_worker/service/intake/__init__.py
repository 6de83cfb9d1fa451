"""Handles plan messages, from reading and checking the plan to recording its decision."""
