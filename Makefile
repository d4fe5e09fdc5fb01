# The targets of the contract. `make up` and `make test` are the README's two commands.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup up test check bench docs lock clean
.DEFAULT_GOAL := up
