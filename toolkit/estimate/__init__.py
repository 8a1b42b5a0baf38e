"""What a run will take, from its recipe and a line about the hardware: nothing is trained, loaded or downloaded."""
